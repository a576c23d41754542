"""What makes bash complete the commands: a script with all words in it, so that a TAB starts no Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SCRIPT = """\
# Completion of earthtune in bash: source this file.
_earthtune() {{
  local known current="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    known="{commands} --help --version"
  else
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$known" -- "$current"))
}}
complete -o default -F _earthtune earthtune
"""


def script(words: Mapping[str, Sequence[str]]) -> str:
    """A bash script that completes commands, and after each its words; file names where none of them fits.

    Args:
        words: the options and names that may follow each command.
    """
    cases = "\n".join(f'      {command}) known="{" ".join(known)}" ;;' for command, known in words.items())
    return _SCRIPT.format(commands=" ".join(words), cases=cases)
