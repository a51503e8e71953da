"""Commands for the local cloud's host: doctor, and the base images."""

from __future__ import annotations

from dataclasses import asdict

from vcluster.commands.common import How, command, options
from vcluster.console import clean


@command("doctor")
@options()
def doctor_(how: How) -> int:
    """Exit code 0 when it can (if slowly), else 1, and each thing that is missing with how to get it."""
    from vcluster.clouds.local.doctor import checks

    found = checks()
    lines = []
    for check in found:
        lines.append(f"{'ok     ' if check.ok else 'MISSING'}  {clean(check.name)}: {clean(check.detail)}")
        if check.remedy:
            lines.append(f"         {clean(check.remedy)}")
    able = all(check.ok for check in found)
    lines += ["", "This computer can run the local cloud." if able else "Something is missing for the local cloud."]
    how.result("doctor", {"ok": able, "checks": [asdict(check) for check in found]}, "\n".join(lines))
    return 0 if able else 1
