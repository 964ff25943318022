// Stores all files of the page, so that it works without a network once it has been opened.

const CACHE = "jahp";

self.addEventListener("install", (event) => {
  event.waitUntil(keepAll());
  self.skipWaiting();
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || !event.request.url.startsWith(self.location.origin)) return;
  event.respondWith(answer(event.request));
});

/** Store all files of the page. */
async function keepAll() {
  const list = await fetch(new URL("graphs/files.json", self.location));
  const cache = await caches.open(CACHE);
  await cache.addAll([new URL(".", self.location), ...(await list.json()).map((path) => new URL(path, self.location))]);
}

// The network is asked first, because page and model must fit each other; the browser's own cache saves transfers.
async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept === undefined) throw error;
    return kept;
  }
}
