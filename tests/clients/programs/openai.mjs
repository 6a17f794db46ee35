// OpenAI's client for Node.
import fs from "node:fs";
import OpenAI from "openai";

const [url, path, apiKey] = process.argv.slice(2);
const { texts, vectors } = JSON.parse(fs.readFileSync(path, "utf-8"));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
for (const options of [{}, { encoding_format: "float" }]) {
  const made = await client.embeddings.create({ model: "m", input: texts, ...options });
  made.data.forEach((entry, i) => {
    if (entry.embedding.length !== vectors[i].length) throw new Error("another length");
    entry.embedding.forEach((value, j) => {
      if (Math.abs(value - vectors[i][j]) > 1e-6) throw new Error(`${i}, ${j}: ${value}`);
    });
  });
}
