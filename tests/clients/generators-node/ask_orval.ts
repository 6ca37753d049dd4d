// Ask a chat question with the client that orval has generated.
import { chatCreate } from './orval/mes';

const answer = await chatCreate(
  {
    model: 'smollm2:135m',
    messages: [{ role: 'user', content: 'What is the capital of France?' }],
    temperature: 0,
  },
  { headers: { Authorization: `Bearer ${process.env.MES_API_KEY}` } },
);
if (answer.status !== 200 || !('choices' in answer.data)) throw new Error(JSON.stringify(answer));
console.log(JSON.stringify(answer.data.choices[0].message.content));
