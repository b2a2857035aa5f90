"""Keeps a command from driving the terminal: colours pass, every other escape sequence goes."""

import re
from typing import Final

#: Longest sequences that are recognised; what is longer loses its introducer and becomes text.
_STRING_MAX: Final = 4096

_TEXT: Final = re.compile(
    rb"(?:[\x08\t\n\r\x20-\x7e]"
    rb"|\xc2[\xa0-\xbf]|[\xc3-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})+"
)
_COLOUR: Final = re.compile(rb"\x1b\[[0-9;:]{0,64}m")
#: A whole sequence: CSI, a string (OSC, DCS, SOS, PM, APC), or a short one.
_SEQUENCE: Final = re.compile(
    rb"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
    rb"|\x1b[\]PX^_][^\x07\x1b\x18\x1a\n]{0,%(max)d}(?:\x07|\x1b\\|(?=[\x1b\x18\x1a\n]))"
    rb"|\x1b[ -/]{1,8}[0-~]"
    rb"|\x1b[0-OQ-WYZ\\`-~]" % {b"max": _STRING_MAX}
)
#: The beginning of a sequence or of a character, up to the end of what has come so far.
_BEGINNING: Final = re.compile(
    rb"(?:\x1b\[[0-?]{0,64}[ -/]{0,8}"
    rb"|\x1b[\]PX^_][^\x07\x1b\x18\x1a\n]{0,%(max)d}\x1b?"
    rb"|\x1b[ -/]{0,8}"
    rb"|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z" % {b"max": _STRING_MAX}
)
_RESET: Final = b"\x1b[0m"


class EscapeFilter:
    r"""One stream's way to a terminal; how its bytes are cut into pieces changes nothing.

    Kept: text in UTF-8, `\t`, `\n`, `\r`, backspace, and colours (SGR). Dropped: every other
    control character and escape sequence. Bytes that are no UTF-8 pass unless they are C1
    controls.
    """

    def __init__(self) -> None:
        self._held = b""
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back before, may be shown now."""
        data = self._held + data
        shown: list[bytes] = []
        at = 0
        while at < len(data):
            text = _TEXT.match(data, at)
            if text is not None:
                shown.append(text[0])
                at = text.end()
            elif _BEGINNING.match(data, at) is not None:
                break
            else:
                at = self._special(data, at, shown)
        self._held = data[at:]
        return b"".join(shown)

    def finish(self) -> bytes:
        """What is shown at the end: a cut character, and no colours any more."""
        held, self._held = self._held, b""
        tail = b"" if held.startswith(b"\x1b") else _without_c1(held)
        coloured, self._coloured = self._coloured, False
        return tail + (_RESET if coloured else b"")

    def _special(self, data: bytes, at: int, shown: list[bytes]) -> int:
        """Deal with the one thing at `at` that is not text; where to go on."""
        colour = _COLOUR.match(data, at)
        if colour is not None:
            shown.append(colour[0])
            self._coloured = colour[0] not in (_RESET, b"\x1b[m")
            return colour.end()
        sequence = _SEQUENCE.match(data, at)
        if sequence is not None:
            return sequence.end()
        if data[at] == 0xC2 and 0x80 <= data[at + 1] <= 0x9F:
            return at + 2  # a C1 control as UTF-8; a lone 0xC2 at the end is held back before
        if data[at] >= 0xA0:
            shown.append(data[at : at + 1])
        return at + 1


def _without_c1(data: bytes) -> bytes:
    return bytes(byte for byte in data if byte >= 0xA0)
