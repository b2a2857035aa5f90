"""Orders in their final shape, not signed yet."""

from app import wire
from app.domain.models.order import ControlOrder, RunOrder, SealedOrder


class UnsignedSealer:
    """An OrderSealer whose signature and key id are empty."""

    def seal_run(self, order: RunOrder) -> SealedOrder:
        """Encode a run order."""
        return SealedOrder(wire.run_order(order), b"", "")

    def seal_control(self, order: ControlOrder) -> SealedOrder:
        """Encode a control order."""
        return SealedOrder(wire.control_order(order), b"", "")
