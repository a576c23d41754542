// The whole site is kept in the browser, so that it works where there is no network; what the server has comes first.

const worker = /** @type {any} */ (self);
const kept = () => caches.open(`earthtune ${worker.registration.scope}`);

/** Fetch every file that checksums.txt names. */
async function keep() {
  const list = await (await fetch("checksums.txt", { cache: "no-cache" })).text();
  const names = list
    .trim()
    .split("\n")
    .map((line) => line.split("  ")[1]);
  await (await kept()).addAll(["./", "checksums.txt", ...names]);
}

/**
 * A file as the server has it now, else as it was kept.
 * @param {Request} request
 */
async function answer(request) {
  const cache = await kept();
  try {
    const reply = await fetch(request);
    if (reply.ok) await cache.put(request, reply.clone());
    return reply;
  } catch {
    return (await cache.match(request, { ignoreVary: true })) || Response.error();
  }
}

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(keep()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(worker.clients.claim()));
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(worker.registration.scope)) {
    event.respondWith(answer(event.request));
  }
});
