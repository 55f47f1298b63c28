"""Which parts of an answer are constrained: what the reader sees, and the arguments of some calls.

Thoughts run free before them, and so does text before a call.
"""

import re

from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline, Trigger
from swarm.dialogue.answer import AnswerForm
from swarm.dialogue.formats import CHANNEL_ANSWER, CHANNEL_CALL, Behind


def outline_of(
    answer: Constraint | None, form: AnswerForm, ending: str, calls: tuple[Trigger, ...] = ()
) -> Constraint | Outline | None:
    """Return which parts of an answer are constrained; None if none is.

    Args:
        answer: the constraint of what the reader sees.
        ending: of the prompt, which may have opened the thoughts, or ended them.
        calls: where constrained arguments of calls begin.
    """
    if answer is None and not calls:
        return None
    if form.format is not None and form.format.has_channels:
        return _in_channels(answer, calls, form)
    thoughts = None if form.ended_by(ending) else form.tags
    begins = form.format.begins if form.format and form.tools and answer else ""
    if answer is not None and thoughts is None and not begins:
        return answer
    return Outline(answer, thoughts, form.opened_by(ending), begins, calls)


def _in_channels(
    answer: Constraint | None, calls: tuple[Trigger, ...], form: AnswerForm
) -> Outline:
    """Return the outline of an answer in channels, of which thoughts are one."""
    triggers = calls
    if form.tools is not None:
        triggers += (trigger_of(CHANNEL_CALL, None),)
    if answer is not None:
        triggers += (trigger_of(CHANNEL_ANSWER, answer, final=True),)
    return Outline(triggers=triggers)


def trigger_of(
    behind: Behind, constraint: Constraint | None, name: str = "", final: bool = False
) -> Trigger:
    """Return where a constraint holds. ``name``: of the function whose call it is."""
    before = behind.before.replace("{name}", re.escape(name))
    return Trigger(behind.marker, constraint, before, final)
