module.exports = {
  mes: {
    input: './openapi.json',
    output: { target: './orval/mes.ts', client: 'fetch', baseUrl: process.env.MES_URL },
  },
};
