// Ask a chat question with openapi-fetch and the types that openapi-typescript has generated.
import createClient from 'openapi-fetch';
import type { paths } from './openapi_typescript/mes';

const client = createClient<paths>({
  baseUrl: process.env.MES_URL,
  headers: { Authorization: `Bearer ${process.env.MES_API_KEY}` },
});
const { data } = await client.POST('/v1/chat/completions', {
  body: {
    model: 'smollm2:135m',
    messages: [{ role: 'user', content: 'What is the capital of France?' }],
    temperature: 0,
  },
});
if (!data || !('choices' in data)) throw new Error('no answer');
console.log(JSON.stringify(data.choices[0].message.content));
