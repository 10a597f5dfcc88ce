#!/usr/bin/env python3
"""Write a post, read it back, and keep a copy of all posts up to date. Needs only Python's standard library.

WRITER and READER are the addresses of the writer and of the gateway, or of a reader.
"""
import http.client
import json
import os
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

WRITER = os.environ.get("WRITER", "http://localhost:8080")
READER = os.environ.get("READER", "http://localhost:9080")
BROKEN = (OSError, http.client.HTTPException)  # the errors of a connection that breaks


def call(method, url, body=None, **headers):
    """Returns headers and body of the answer. It repeats a request that is answered with "not now", or not completely."""
    while True:
        try:
            with urlopen(Request(url, body, headers, method=method), timeout=30) as answer:
                return answer.headers, answer.read()
        except HTTPError as error:
            if error.code < 500:
                raise
        except BROKEN:
            pass
        time.sleep(1)


def copy_all():
    """Returns all posts by id, and the position from which the changes lead on."""
    while True:
        posts, query = {}, {"limit": 1000}
        try:
            while True:
                page = json.loads(call("GET", f"{READER}/posts?{urlencode(query)}")[1])
                posts.update((post["id"], post) for post in page["posts"])
                if page["after"] is None:
                    return posts, page["since"]
                query.update(after=page["after"], since=page["since"])
        except HTTPError as error:
            if error.code != 410:  # 410: Redis has begun another history
                raise


def follow(posts, since):
    """Applies changes to posts until the stream ends, and returns the position from which to resume."""
    event = {}
    request = Request(f"{READER}/changes", headers={"Accept": "text/event-stream", "Last-Event-ID": since})
    try:
        with urlopen(request, timeout=30) as stream:  # there is a heartbeat every 10 s
            for line in stream:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    event[name] = value
                    continue
                # An empty line completes the event. One that is cut off must not count.
                if "event" in event:
                    post = json.loads(event["data"])
                    print(event["event"], post["id"], flush=True)
                    if event["event"] == "set":
                        posts[post["id"]] = post
                    else:
                        posts.pop(post["id"], None)
                since = event.get("id", since)
                event = {}
    except HTTPError as error:
        if error.code == 410:  # too old, or of another history
            return None
    except BROKEN:
        pass
    return since


body = json.dumps({"id": "from-python", "title": "Hello"}).encode()
written, _ = call("POST", f"{WRITER}/create", body, **{"Content-Type": "application/json"})
_, read = call("GET", f"{READER}/post?id=from-python", **{"X-Min-Version": written["X-Version"]})
print("read", json.loads(read)["title"], flush=True)
position = None
while True:
    if position is None:
        everything, position = copy_all()
        print("copied", len(everything), flush=True)
    position = follow(everything, position)
    time.sleep(0.5)
