"""Exit status 0 while the controller of this container answers `GET /ready` with 200, else 1.

Nothing but the standard library, so that a check every few seconds costs little.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0


def main() -> int:
    """Ask once; print why where the answer is not 200."""
    scheme = "https" if os.environ.get("TLS_CERT_FILE") else "http"
    url = f"{scheme}://127.0.0.1:{os.environ.get('PORT') or 8001}/ready"
    # The certificate names the host that the world knows, not the loopback that is asked here.
    context = ssl._create_unverified_context() if scheme == "https" else None  # noqa: S323
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context):  # noqa: S310
            return 0
    except (OSError, urllib.error.URLError) as exc:
        print(f"{url}: {exc}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
