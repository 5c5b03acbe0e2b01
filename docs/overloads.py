"""For the reference: a function with overloads shows the parameters of its first one, which has all of them."""

from typing import Any

import griffe

__all__ = ["FirstOverload"]


class FirstOverload(griffe.Extension):
    """Take the parameters of the first overload where the implementation hands `**options` on."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called for every class that was read."""
        for member in cls.members.values():
            if (
                isinstance(member, griffe.Function)
                and member.overloads
                and len(member.overloads[0].parameters) > len(member.parameters)
            ):
                member.parameters = member.overloads[0].parameters
