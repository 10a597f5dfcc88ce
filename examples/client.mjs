// Write a post, read it back, and keep a copy of all posts up to date. Needs Node 18 or newer, and no package.
//
// WRITER and READER are the addresses of the writer and of the gateway, or of a reader.

const writer = process.env.WRITER ?? "http://localhost:8080";
const reader = process.env.READER ?? "http://localhost:9080";
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// call returns an answer and its JSON. It repeats a request that is answered with "not now", or not completely.
async function call(url, options = {}) {
  for (;; await sleep(1000)) {
    try {
      const answer = await fetch(url, options);
      if (answer.status < 500) return [answer, await answer.json()];
    } catch {
      // the connection has broken
    }
  }
}

// copyAll returns all posts by id, and the position from which the changes lead on.
async function copyAll() {
  for (;;) {
    const posts = new Map();
    const query = new URLSearchParams({ limit: 1000 });
    for (;;) {
      const [answer, page] = await call(`${reader}/posts?${query}`);
      if (answer.status === 410) break; // Redis has begun another history
      if (!answer.ok) throw new Error(page.detail);
      for (const post of page.posts) posts.set(post.id, post);
      if (page.after === null) return [posts, page.since];
      query.set("after", page.after);
      query.set("since", page.since);
    }
  }
}

// follow applies changes to posts until the stream ends, and returns the position from which to resume.
async function follow(posts, since) {
  const text = new TextDecoder();
  let rest = "";
  try {
    const answer = await fetch(`${reader}/changes`, { headers: { Accept: "text/event-stream", "Last-Event-ID": since } });
    if (answer.status === 410) return null; // too old, or of another history
    if (!answer.ok) return since;
    for await (const part of answer.body) {
      const events = (rest + text.decode(part, { stream: true })).split("\n\n");
      rest = events.pop(); // not complete yet; one that is cut off must not count
      for (const event of events) {
        const field = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/)));
        if (field.event) {
          const post = JSON.parse(field.data);
          console.log(field.event, post.id);
          if (field.event === "set") posts.set(post.id, post);
          else posts.delete(post.id);
        }
        since = field.id ?? since;
      }
    }
  } catch {
    // the connection has broken
  }
  return since;
}

const json = { "Content-Type": "application/json" };
const body = JSON.stringify({ id: "from-node", title: "Hello" });
const [written] = await call(`${writer}/create`, { method: "POST", headers: json, body });
const version = { "X-Min-Version": written.headers.get("X-Version") };
const [, read] = await call(`${reader}/post?id=from-node`, { headers: version });
console.log("read", read.title);
for (let posts, since = null; ; await sleep(500)) {
  if (since === null) {
    [posts, since] = await copyAll();
    console.log("copied", posts.size);
  }
  since = await follow(posts, since);
}
