"""One use case per file, each a verb phrase; UseCases is all of them together."""

from dataclasses import dataclass

from app.application.dispatcher import Dispatcher
from app.application.follower import Follower
from app.application.lifecycle import Lifecycle
from app.application.ports.storage_room import StorageRoom
from app.application.use_cases.control_command import ControlCommand
from app.application.use_cases.expire_finished import ExpireFinished
from app.application.use_cases.expire_queued import ExpireQueued
from app.application.use_cases.manage_tokens import ManageTokens
from app.application.use_cases.manage_users import ChangeOwnPassword, ManageUsers
from app.application.use_cases.queries import Queries
from app.application.use_cases.read_output import ReadOutput
from app.application.use_cases.record_reports import RecordReports
from app.application.use_cases.register_agent import ConfirmEpoch, RegisterAgent
from app.application.use_cases.release_agent import DescribeAgent, ReleaseAgent
from app.application.use_cases.sign_in import Authenticate, SignIn
from app.application.use_cases.submit_command import SubmitCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What the controller can do; the doors call these and nothing else."""

    sign_in: SignIn
    authenticate: Authenticate
    manage_users: ManageUsers
    manage_tokens: ManageTokens
    change_own_password: ChangeOwnPassword
    register_agent: RegisterAgent
    confirm_epoch: ConfirmEpoch
    release_agent: ReleaseAgent
    describe_agent: DescribeAgent
    submit_command: SubmitCommand
    control_command: ControlCommand
    record_reports: RecordReports
    expire_queued: ExpireQueued
    expire_finished: ExpireFinished
    queries: Queries
    read_output: ReadOutput
    follower: Follower
    dispatcher: Dispatcher
    lifecycle: Lifecycle
    room: StorageRoom
