"""The widget's page in a browser without Jupyter: its model is a stub that asks the widget over loopback."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = """<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>map</title>
<style>body { margin: 8px }</style><style>%s</style><div id="el"></div>
<script type="module">
import page from "./explorer.js";
const heard = {}, tell = (name, ...said) => (heard[name] ?? []).forEach((act) => act(...said));
let state = {};
window.sent = [];
window.asking = 0; // questions that are on their way
let before = Promise.resolve(); // one after the other, as messages of a kernel
window.ask = (said) => {
  asking += 1;
  return (before = before.then(() => answered(said)));
};
const answered = async (said) => {
  const told = await (await fetch("./ask", { method: "POST", body: JSON.stringify(said) })).json(), old = state;
  state = told.state;
  for (const name in state) if (JSON.stringify(state[name]) !== JSON.stringify(old[name])) tell(`change:${name}`);
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  told.messages.forEach(([content, buffers]) => tell("msg:custom", content, buffers.map(bytes)));
  asking -= 1;
};
const changed = {};
const model = {
  get: (name) => state[name],
  set: (name, value) => { state = { ...state, [name]: value }; changed[name] = value; tell(`change:${name}`); },
  save_changes: () => ask({ set: changed }),
  on: (name, act) => (heard[name] ??= []).push(act),
  off: (name, act) => (heard[name] = heard[name].filter((other) => other !== act)),
  send: (message) => { sent.push(message); ask({ message }); },
};
await ask({});
window.end = page.render({ model, el: document.querySelector("#el") });
window.ready = true;
</script>"""
STATE = ("points", "corrections", "layers", "classes", "_size", "_marks", "_rings", "_map")


@contextmanager
def served(widget):
    """The address of a page that shows the widget, while the block runs."""
    messages, lock = [], threading.Lock()
    widget.send = lambda content, buffers=None: messages.append((content, buffers or []))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *told):
            pass

        def _answer(self, text, kind):
            data = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            if self.path == "/explorer.js":
                return self._answer(widget._esm, "text/javascript")
            return self._answer(PAGE % widget._css, "text/html")

        def do_POST(self):
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                for name, value in said.get("set", {}).items():
                    setattr(widget, name, value)
                if "message" in said:
                    widget._hear(widget, said["message"], [])
                told = [(content, [base64.b64encode(b).decode() for b in buffers]) for content, buffers in messages]
                messages.clear()
                state = {name: getattr(widget, name) for name in STATE}
            self._answer(json.dumps({"state": state, "messages": told}), "application/json")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *told: None  # a page that is left hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
