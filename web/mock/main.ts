// Starts the mock controller: `npm run mock -- --machines 1000 --interval 1 --port 8000`.

import { CODE, startMock } from "./server";

function option(name: string, otherwise: number): number {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}

const mock = await startMock({
  machines: option("machines", 25),
  interval: option("interval", 5),
  port: option("port", 8000),
});
console.log(`Mock controller with ${mock.controller.machines.size} machines: ${mock.url}/#login=${CODE}`);
process.once("SIGINT", () => void mock.stop().then(() => process.exit(0)));
