// The Vercel AI SDK: texts, tools in streams, and objects.

import assert from "node:assert/strict";

import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

import { model } from "./docs_snippet.mjs";

const sum = z.object({ first: z.number().int().min(0).max(9), unit: z.enum(["apples", "coins"]) });
async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

const asked = { model, prompt: "What is 1 + 2?", temperature: 0, maxOutputTokens: 200 };
const add = tool({ description: "Add.", inputSchema: sum, execute: async ({ first }) => first + 1 });

export async function aText() {
  const { text, usage } = await generateText({ ...asked, maxOutputTokens: 20 });
  assert(text && usage.outputTokens > 0);
}

export async function aStream() {
  const { textStream } = streamText({ ...asked, maxOutputTokens: 20 });
  assert((await all(textStream)).join(""));
}

export async function toolsInAStream() {
  const stopWhen = stepCountIs(2);
  const stream = streamText({ ...asked, tools: { add }, toolChoice: "required", stopWhen });
  const parts = await all(stream.fullStream);
  assert.deepEqual(parts.filter((part) => part.type === "error"), []);
  const results = parts.filter((part) => part.type === "tool-result");
  assert.equal(results.length, 2); // the second step has read the result of the first
  assert(results.every((each) => each.output === each.input.first + 1));
}

export async function objects() {
  const { object } = await generateObject({ ...asked, schema: sum });
  assert(sum.safeParse(object).success);
  const stream = streamObject({ ...asked, schema: sum });
  await all(stream.partialObjectStream);
  assert(sum.safeParse(await stream.object).success);
}

export async function thoughtsComeBack() {
  const messages = [
    { role: "user", content: "What is 1 + 2?" },
    { role: "assistant", content: [{ type: "reasoning", text: "Hm." }, { type: "text", text: "3" }] },
    { role: "user", content: "And 2 + 2?" },
  ];
  const { prompt, ...rest } = asked;
  assert((await generateText({ ...rest, messages, maxOutputTokens: 20 })).text);
}
