// The Durable Streams server for Node, as its package gives it but for its open files, on a free port of loopback; prints the port.
//   node durable_streams.mjs PACKAGES [FOLDER]      PACKAGES holds node_modules; with FOLDER it is backed by files there
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const MOST_STREAMS = 4096

const [packages, folder] = process.argv.slice(2)
const entry = createRequire(join(packages, "package.json")).resolve("@durable-streams/server")
const { DurableStreamTestServer } = await import(pathToFileURL(entry.replace(/index\.cjs$/, "index.js")).href)

const server = new DurableStreamTestServer({ host: "127.0.0.1", port: 0, dataDir: folder })
// Its store holds 100 files open, an option that the server does not hand on. With more streams than that, one is closed
// between a write and its fsync ("handle not found"), and the server answers 404: give it as many as there are streams.
if (folder) server.store.fileHandlePool = new server.store.fileHandlePool.constructor(MOST_STREAMS)
const url = new URL(await server.start())
console.log(JSON.stringify({ port: Number(url.port) }))
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    setTimeout(() => process.exit(0), 1000).unref()
    server.stop().finally(() => process.exit(0))
  })
}
