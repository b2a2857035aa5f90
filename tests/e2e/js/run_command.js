// Runs one command with npm's socket.io-client and prints every event of it as a line of JSON:
//   node run_command.js URL TOKEN AGENT_ID COMMAND
// Ends with the command's result, or with 1 where the controller refuses.
import { io } from "socket.io-client";

const [url, token, agentId, command] = process.argv.slice(2);
const print = (event, payload) => process.stdout.write(JSON.stringify({ event, payload }) + "\n");
const socket = io(url, { auth: { token }, reconnection: false });

function end(code) {
  socket.close();
  process.exitCode = code;
}

for (const event of ["connection_response", "command_response", "command_progress"]) {
  socket.on(event, (payload) => print(event, payload));
}
socket.on("command_result", (payload) => {
  print("command_result", payload);
  end(0);
});
socket.on("connect_error", (error) => {
  print("connect_error", { message: error.message, data: error.data });
  end(1);
});
socket.on("connect", () => {
  socket.emit("execute_command", { agent_id: agentId, command }, (answer) => {
    print("acknowledged", answer);
    if (!answer.ok) end(1);
  });
});
