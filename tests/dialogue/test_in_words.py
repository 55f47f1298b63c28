"""Tools in words, for templates that know none."""

from swarm.dialogue.in_words import calls_in_words, tools_in_words

TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
USER = {"role": "user", "content": "x"}


def call(name, arguments):
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tools_are_described_in_the_system_prompt():
    (system, user) = tools_in_words([USER], [TOOL])
    assert user == USER
    assert system["role"] == "system"
    assert '"name": "add"' in system["content"]
    (longer, _) = tools_in_words([{"role": "system", "content": "Be brief."}, USER], [TOOL])
    assert longer["content"] == f"Be brief.\n\n{system['content']}"


def test_calls_and_results_become_text_and_results_one_message():
    calls = [call("add", '{"a": 1}'), call("now", "")]
    messages = [
        USER,
        {"role": "assistant", "content": "Hm.", "tool_calls": calls},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "noon"},
    ]
    assert calls_in_words(messages) == [
        USER,
        {
            "role": "assistant",
            "content": 'Hm.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        },
        {
            "role": "user",
            "content": "<tool_response>\n3\n</tool_response>\n"
            "<tool_response>\nnoon\n</tool_response>",
        },
    ]
    assert messages[1]["tool_calls"] == calls  # those of the caller stay as they are
