/** A Chromium to drive: its DevTools protocol over a pipe, which needs no library. */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The command of a Chromium, or null. `CHROMIUM` names another one than those that are looked for. */
export function chromium() {
  for (const name of [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"]) {
    try {
      if (name && execFileSync(name, ["--version"], { stdio: "pipe" })) return name;
    } catch {
      continue;
    }
  }
  return null;
}

export class Browser {
  /** @param {string} command */
  constructor(command) {
    this.profile = mkdtempSync(join(tmpdir(), "tensordelta-browser-"));
    const options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"];
    this.child = spawn(command, [...options, "--remote-debugging-pipe", `--user-data-dir=${this.profile}`, "about:blank"],
      { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.ended = new Promise((resolve) => this.child.on("close", resolve));
    this.child.on("error", () => {});
    this.waiting = new Map();
    this.listeners = [];
    this.last = 0;
    let rest = "";
    this.child.stdio[4].setEncoding("utf8").on("data", (text) => {
      const messages = (rest + text).split("\0");
      rest = messages.pop();
      for (const message of messages) this.receive(JSON.parse(message));
    });
    this.ended.then((code) => {
      for (const { reject } of this.waiting.values()) reject(new Error(`the browser ended with ${code}`));
    });
  }

  receive({ id, result, error, method, params, sessionId }) {
    if (id === undefined) return this.listeners.forEach((listen) => listen(method, params, sessionId));
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    return error ? reject(new Error(error.message)) : resolve(result);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.last;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  /** A tab that shows an address. @returns {Promise<Tab>} */
  async open(url, options) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(this, targetId, sessionId);
    await tab.prepare(options);
    await tab.go(url);
    return tab;
  }

  async close() {
    const end = setTimeout(() => this.child.kill("SIGKILL"), 10_000);
    this.send("Browser.close").catch(() => {});
    await this.ended;
    clearTimeout(end);
    // Its other processes may end later, and write until then; what stays is a temporary folder, and no fault of a page.
    for (let left = 100; left > 0; left--) {
      try {
        return rmSync(this.profile, { recursive: true, force: true });
      } catch {
        await new Promise((next) => setTimeout(next, 100));
      }
    }
  }
}

export class Tab {
  constructor(browser, target, session) {
    this.browser = browser;
    this.target = target;
    this.session = session;
    /** What the page asked for. @type {{method: string, url: string}[]} */
    this.requests = [];
    /** What went wrong in the page. @type {string[]} */
    this.complaints = [];
    browser.listeners.push((method, params, sessionId) => {
      if (sessionId !== session) return;
      if (method === "Network.requestWillBeSent") this.requests.push({ method: params.request.method, url: params.request.url });
      if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      if (method === "Log.entryAdded" && params.entry.level === "error" && params.entry.source !== "network" && !params.entry.text.includes("CORS policy")) this.complaints.push(params.entry.text);
    });
  }

  send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  async prepare({ width = 1200, height = 900, scheme = "light" } = {}) {
    for (const domain of ["Page", "Runtime", "Network", "Log", "DOM"]) await this.send(`${domain}.enable`);
    await this.size(width, height);
    await this.scheme(scheme);
  }

  size(width, height) {
    return this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  }

  scheme(value) {
    return this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
  }

  async go(url) {
    await this.send("Page.navigate", { url });
    await this.until(`document.readyState === "complete" && location.href !== "about:blank"`);
  }

  /** The value of an expression in the page, which may be a promise. */
  async value(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until an expression holds. */
  async until(expression, seconds = 300) {
    const end = Date.now() + 1000 * seconds;
    for (;;) {
      // While a page is loaded there is nothing to ask.
      const value = await this.value(expression).catch(() => false);
      if (value) return value;
      if (Date.now() > end) throw new Error(`never: ${expression}`);
      await new Promise((next) => setTimeout(next, 30));
    }
  }

  text(selector) {
    return this.value(`document.querySelector(${JSON.stringify(selector)}).innerText`);
  }

  /** A click of the mouse in the middle of an element. */
  async click(selector) {
    const { x, y } = await this.value(`(() => {
      const element = document.querySelector(${JSON.stringify(selector)});
      element.scrollIntoView({ block: "center", behavior: "instant" });
      const { left, top, width, height } = element.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`);
    for (const type of ["mousePressed", "mouseReleased"]) await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
  }

  async type(text) {
    await this.send("Input.insertText", { text });
  }

  /** @param {...string} keys such as Tab, Enter, ArrowLeft */
  async press(...keys) {
    for (const key of keys) {
      const more = key === "Enter" ? { text: "\r" } : {};
      const codes = { Tab: 9, Enter: 13, End: 35, Home: 36, ArrowLeft: 37, ArrowUp: 38, ArrowRight: 39, ArrowDown: 40 };
      await this.send("Input.dispatchKeyEvent", { type: "keyDown", key, code: key, windowsVirtualKeyCode: codes[key], ...more });
      await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, code: key, windowsVirtualKeyCode: codes[key] });
    }
  }

  /** Drops files or folders of this machine on the page, as a person does from a file manager. @param {string[]} files */
  async drop(files, x = 300, y = 300) {
    const data = { items: [], files, dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) await this.send("Input.dispatchDragEvent", { type, x, y, data });
  }

  /** Picks files or a folder in an input. */
  async pick(selector, files) {
    const { result } = await this.send("Runtime.evaluate", { expression: `document.querySelector(${JSON.stringify(selector)})` });
    await this.send("DOM.setFileInputFiles", { objectId: result.objectId, files });
  }

  async close() {
    await this.browser.send("Target.closeTarget", { targetId: this.target });
  }

  /** @returns {Promise<Buffer>} a PNG of the whole page */
  async picture(whole = true) {
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: whole });
    return Buffer.from(data, "base64");
  }
}
