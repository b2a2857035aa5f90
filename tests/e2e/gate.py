"""What a command waits for until the test lets it go on, and the other way round."""

from pathlib import Path

from tests.e2e.services import until


class Gate:
    """Files in a folder: a command waits for one that only the test makes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._awaited: set[str] = set()
        folder.mkdir()

    def wait(self, name: str) -> str:
        """Shell that goes on once the test has opened `name`."""
        self._awaited.add(name)
        return f"until [ -e {self._folder / name} ]; do sleep 0.02; done"

    def mark(self, name: str) -> str:
        """Shell that tells the test that the command has come so far."""
        return f"touch {self._folder / name}"

    def open(self, name: str) -> None:
        (self._folder / name).touch()

    def open_all(self) -> None:
        """So that a failed test leaves no command that waits for ever."""
        for name in self._awaited:
            self.open(name)

    def is_marked(self, name: str) -> bool:
        return (self._folder / name).exists()

    async def reached(self, name: str) -> None:
        """Return once the command has made its mark `name`."""
        await until(lambda: self.is_marked(name))
