// The HTTP server of both peers. It takes the requests that reactor's HTTP API takes.
import { createServer } from "node:http";

/** Serves functions by their path, each a function of the arguments. What one throws is answered as a failure. */
export function serve(functions) {
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk) => {
      body += chunk;
    });
    request.on("end", async () => {
      const answer = JSON.stringify(await run(functions, body));
      response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(answer) });
      response.end(answer);
    });
  });
  server.listen(Number(process.argv[2]), "127.0.0.1");
}

async function run(functions, body) {
  try {
    const { path, args } = JSON.parse(body);
    return { status: "success", value: (await functions[path](args)) ?? null };
  } catch (error) {
    return { status: "error", errorMessage: String(error) };
  }
}
