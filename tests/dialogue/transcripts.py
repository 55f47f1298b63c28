"""Answers as models of each family write them, and what they consist of."""

from dataclasses import dataclass

from swarm.dialogue.events import CallArguments, CallBegun, Event, Reasoning, Text

# The schemas of tools that the answers call.
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer"},
                    "b": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                    "note": {"type": "string"},
                    "flags": {"type": "array", "items": {"type": "boolean"}},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}},
]
ADD = [CallBegun("add"), CallArguments('{"a": 1, "b": 2}')]
NOW = [CallBegun("now"), CallArguments("{}")]


@dataclass(frozen=True)
class Transcript:
    """An answer, the sign of its family in a template, and its parts.

    Attributes:
        begun: the prompt has opened the thoughts.
    """

    template: str
    answer: str
    events: list[Event]
    begun: bool = False


HERMES = "<tool_call>"
QWEN3 = "<tool_call></think>"
CODER = "<tool_call><function="
GLM = "<tool_call><arg_key></think>"
LLAMA = "<|python_tag|>"
MISTRAL = "[TOOL_CALLS]"
MAGISTRAL = "[TOOL_CALLS][THINK]"
DEEPSEEK = "<｜tool▁calls▁begin｜></think>"
DSML = "<｜DSML｜function_calls></think>"
KIMI = "<|tool_calls_section_begin|>"
MINIMAX = "<minimax:tool_call></think>"
GRANITE = "<|tool_call|>"
HARMONY = "<|channel|>"

TRANSCRIPTS = {
    "hermes": Transcript(
        HERMES,
        'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>',
        [Text("I add."), *ADD],
    ),
    "hermes, two calls": Transcript(
        HERMES,
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n',
        [*ADD, *NOW],
    ),
    "hermes, arguments before the name": Transcript(
        HERMES,
        '<tool_call>{"arguments": {"a": 1, "b": 2}, "id": "x", "name": "add"}</tool_call>',
        [CallBegun("add", "x"), ADD[1]],
    ),
    "hermes, arguments in a string": Transcript(
        HERMES,
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}</tool_call>',
        ADD,
    ),
    "hermes, no arguments, no closing tag": Transcript(HERMES, '<tool_call>\n{"name": "now"}', NOW),
    "hermes, tags and brackets in a string": Transcript(
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"note": "}</tool_call>\\"]"}}</tool_call>',
        [CallBegun("add"), CallArguments('{"note": "}</tool_call>\\"]"}')],
    ),
    "hermes, no call": Transcript(HERMES, "It is 3 < 4.\n\n", [Text("It is 3 < 4.\n\n")]),
    "hermes, no JSON": Transcript(
        HERMES,
        "<tool_call>\nadd 1 and 2\n</tool_call>",
        [Text("<tool_call>\nadd 1 and 2\n</tool_call>")],
    ),
    "hermes, an object without a name": Transcript(
        HERMES, '<tool_call>{"a": 1}</tool_call>!', [Text('<tool_call>{"a": 1}</tool_call>!')]
    ),
    "hermes, cut": Transcript(
        HERMES,
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b"',
        [CallBegun("add"), CallArguments('{"a": 1, "b"')],
    ),
    "qwen3, thoughts and a call": Transcript(
        QWEN3,
        "<think>\nTwo numbers.\n</think>\n\nI add."
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>',
        [Reasoning("Two numbers."), Text("I add."), *ADD],
    ),
    "qwen3, no thoughts": Transcript(QWEN3, "<think>\n\n</think>\n\nHello.", [Text("Hello.")]),
    "qwen3, opened by the prompt": Transcript(
        QWEN3,
        "\nTwo numbers.\n</think>\n\nIt is 3.",
        [Reasoning("Two numbers."), Text("It is 3.")],
        begun=True,
    ),
    "qwen3, opened by the prompt and again": Transcript(
        QWEN3,
        "<think>\nTwo.\n</think>\nIt is 3.",
        [Reasoning("Two."), Text("It is 3.")],
        begun=True,
    ),
    "qwen3, thoughts that are cut": Transcript(
        QWEN3, "<think>\nTwo numbers, and", [Reasoning("Two numbers, and")]
    ),
    "qwen3, a tag later on is text": Transcript(
        QWEN3, "The tag is <think>, and </think>.", [Text("The tag is <think>, and </think>.")]
    ),
    "qwen3-coder": Transcript(
        CODER,
        "Sure.\n\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nnull\n"
        "</parameter>\n<parameter=note>\n<b>\n 1\n\n</parameter>\n<parameter=flags>\n"
        "[true, False]\n</parameter>\n</function>\n</tool_call>",
        [
            Text("Sure."),
            CallBegun("add"),
            CallArguments('{"a": 1, "b": null, "note": "<b>\\n 1\\n", "flags": "[true, False]"}'),
        ],
    ),
    "qwen3-coder, without the outer tag": Transcript(CODER, "<function=now>\n</function>", NOW),
    "glm": Transcript(
        GLM,
        "<think>Two.</think>\nI add.\n<tool_call>add\n<arg_key>a</arg_key>\n"
        "<arg_value>1</arg_value>\n<arg_key>note</arg_key>\n<arg_value>12</arg_value>\n"
        "</tool_call>\n<tool_call>now\n</tool_call>",
        [
            Reasoning("Two."),
            Text("I add."),
            CallBegun("add"),
            CallArguments('{"a": 1, "note": "12"}'),
            *NOW,
        ],
    ),
    "glm 4.7": Transcript(
        GLM,
        "<tool_call>add<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>b</arg_key>"
        "<arg_value>2</arg_value></tool_call>",
        ADD,
    ),
    "llama": Transcript(LLAMA, '{"name": "add", "parameters": {"a": 1, "b": 2}}', ADD),
    "llama, tagged, two calls": Transcript(
        LLAMA,
        '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}; '
        '{"name": "now", "parameters": {}}',
        [*ADD, *NOW],
    ),
    "llama, an object of another kind": Transcript(
        LLAMA,
        '{"name": "Bob", "parameters": 3}',
        [Text('{"name": "Bob", "parameters": 3}')],
    ),
    "llama, text": Transcript(LLAMA, " It is {3}.", [Text(" It is {3}.")]),
    "mistral, a list": Transcript(
        MISTRAL,
        'I add.[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "abcdefghi"}, '
        '{"name": "now", "arguments": {}}]',
        [Text("I add."), *ADD, *NOW],
    ),
    "mistral, names and arguments": Transcript(
        MISTRAL,
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}',
        [*ADD, CallBegun("now", "abcdefghi"), NOW[1]],
    ),
    "mistral, without a marker of arguments": Transcript(
        MISTRAL, '[TOOL_CALLS]add{"a": 1, "b": 2}', ADD
    ),
    "magistral": Transcript(
        MAGISTRAL, "[THINK]Two.[/THINK]It is 3.", [Reasoning("Two."), Text("It is 3.")]
    ),
    "deepseek v3": Transcript(
        DEEPSEEK,
        "Ok.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
        '{"a": 1, "b": 2}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n'
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [Text("Ok."), *ADD, *NOW],
    ),
    "deepseek v3.1": Transcript(
        DEEPSEEK,
        'Two.</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1, "b": 2}'
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [Reasoning("Two."), *ADD, *NOW],
        begun=True,
    ),
    "deepseek v3.2": Transcript(
        DSML,
        'I add.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n'
        '<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="note" string="true">x > 1</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        [Text("I add."), CallBegun("add"), CallArguments('{"a": 1, "note": "x > 1"}')],
    ),
    "kimi": Transcript(
        KIMI,
        "I add.<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0"
        '<|tool_call_argument_begin|>{"a": 1, "b": 2}<|tool_call_end|><|tool_call_begin|>'
        "functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        [
            Text("I add."),
            CallBegun("add", "functions.add:0"),
            ADD[1],
            CallBegun("now", "functions.now:1"),
            NOW[1],
        ],
    ),
    "minimax": Transcript(
        MINIMAX,
        'Two.\n</think>\n\nI add.\n<minimax:tool_call>\n<invoke name="add">\n'
        '<parameter name="a">1</parameter>\n<parameter name="b">2</parameter>\n</invoke>\n'
        '<invoke name="now">\n</invoke>\n</minimax:tool_call>\n',
        [Reasoning("Two."), Text("I add."), *ADD, *NOW],
        begun=True,
    ),
    "granite": Transcript(
        GRANITE,
        '<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": 2}}, '
        '{"name": "now", "arguments": {}}]',
        [*ADD, *NOW],
    ),
    "harmony": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Two numbers.<|end|><|start|>assistant<|channel|>commentary"
        "<|message|>I add.<|end|><|start|>assistant<|channel|>commentary to=functions.add "
        '<|constrain|>json<|message|>{"a": 1, "b": 2}<|call|>',
        [Reasoning("Two numbers."), Text("I add."), *ADD],
    ),
    "harmony, the final channel": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Two.<|end|><|start|>assistant<|channel|>final<|message|>"
        "It is 3.<|return|>",
        [Reasoning("Two."), Text("It is 3.")],
    ),
    "harmony, the recipient before the channel": Transcript(
        HARMONY,
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>",
        NOW,
    ),
    "harmony, without channels": Transcript(HARMONY, "It is 3.", [Text("It is 3.")]),
}
