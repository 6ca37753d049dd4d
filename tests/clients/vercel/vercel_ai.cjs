// Vercel's AI SDK: two turns of a model that reasons, functions beside a typed answer, a stream.
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { Output, generateText, stepCountIs, streamText, tool } = require("ai");
const { z } = require("zod");

const baseURL = process.env.OPENAI_BASE_URL;
const apiKey = process.env.OPENAI_API_KEY;
const MODEL = "llama3.1:8b";
const MODELS = {
  openai: createOpenAI({ baseURL, apiKey }).chat(MODEL),
  compatible: createOpenAICompatible({
    name: "mes", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true,
  })(MODEL),
};
const tools = {
  getWeather: tool({
    description: "Return the weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `21 degrees in ${city}`,
  }),
};
const providerOptions = {
  openai: { reasoningEffort: "high" }, mes: { reasoningEffort: "high" },
};
const Report = z.object({ city: z.string(), degrees: z.number() });

async function twoTurns(model) {
  const messages = [{ role: "user", content: "How warm is Rome?" }];
  const first = await generateText({ model, messages, providerOptions, maxRetries: 0 });
  messages.push(...first.response.messages, { role: "user", content: "And Oslo?" });
  const second = streamText({ model, messages, providerOptions, maxRetries: 0 });
  return {
    texts: [first.text, await second.text],
    reasoning: [first.reasoningText, await second.reasoningText],
    tokens: (await second.usage).outputTokens,
  };
}

async function typedAnswerBesideTools(model) {
  const answer = await generateText({
    model, tools, prompt: "How warm is Rome?", stopWhen: stepCountIs(4), maxRetries: 0,
    output: Output.object({ schema: Report }),
  });
  return { output: answer.output, steps: answer.steps.length };
}

async function main() {
  const done = {};
  for (const [name, model] of Object.entries(MODELS)) {
    done[name] = { turns: await twoTurns(model), typed: await typedAnswerBesideTools(model) };
  }
  console.log(JSON.stringify(done));
}

main();
