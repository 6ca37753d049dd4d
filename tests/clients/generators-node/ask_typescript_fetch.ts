// Ask a chat question with the client that openapi-generator has generated for typescript-fetch.
import { ChatApi, Configuration } from './typescript_fetch/index';

const api = new ChatApi(
  new Configuration({ basePath: process.env.MES_URL, accessToken: process.env.MES_API_KEY }),
);
const answer = await api.chatCreate({
  chatRequest: {
    model: 'smollm2:135m',
    messages: [{ role: 'user', content: 'What is the capital of France?' }],
    temperature: 0,
  },
});
console.log(JSON.stringify(answer.choices[0].message.content));
