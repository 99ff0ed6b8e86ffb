/** What the page is busy with: progress, and a button that ends it. */
import { bytesText, percentText, secondsText } from "./figures.js";

const $ = (id) => document.getElementById(id);

/** Work at hand, one at a time: beginning another ends the one before. */
export class Work {
  /** @type {Work|null} */
  static current = null;

  /** @param {string} doing what is done, such as "Verifying" @param {number|null} total bytes to read; null: not known */
  constructor(doing, total = null) {
    Work.current?.end();
    Work.current = this;
    this.doing = doing;
    this.total = total;
    this.done = 0;
    this.detail = "";
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    this.ended = new Promise((_, reject) => this.signal.addEventListener("abort", () => reject(this.signal.reason)));
    this.ended.catch(() => {});
    this.started = performance.now();
    this.shown = -Infinity;
    this.clock = setInterval(() => this.show(), 500);
    this.show();
  }

  /** What a promise gives, or the end of the work, whichever comes first. */
  unlessEnded(promise) {
    return Promise.race([promise, this.ended]);
  }

  /** So many bytes were read. */
  read(bytes) {
    this.done += bytes;
    if (performance.now() - this.shown > 100) this.show();
  }

  /** So many were found, of nobody knows how many. */
  count(found, detail) {
    this.detail = `${detail} (${found} found)`;
    if (performance.now() - this.shown > 100) this.show();
  }

  at(detail) {
    this.detail = detail;
  }

  show() {
    if (Work.current !== this) return;
    this.shown = performance.now();
    const bar = $("bar");
    const parts = [this.detail];
    if (this.total === null || this.total === 0) {
      bar.removeAttribute("value");
      if (this.done > 0) parts.push(bytesText(this.done));
    } else {
      const share = Math.min(1, this.done / this.total);
      const seconds = (performance.now() - this.started) / 1000;
      bar.value = share;
      parts.push(`${bytesText(Math.min(this.done, this.total))} of ${bytesText(this.total)}`, percentText(Math.floor(100 * share) / 100));
      if (seconds > 1 && this.done > 0) {
        parts.push(`${bytesText(this.done / seconds)}/s`);
        if (share < 1) parts.push(`${secondsText((seconds / share) * (1 - share))} left`);
      }
    }
    $("doing").textContent = this.doing;
    $("detail").textContent = parts.filter((part) => part !== "").join(", ");
    $("progress").hidden = false;
  }

  /** It is done, or nobody wants it any more. */
  end() {
    clearInterval(this.clock);
    this.controller.abort(new DOMException("the person stopped it", "AbortError"));
    if (Work.current !== this) return;
    Work.current = null;
    $("progress").hidden = true;
  }
}

$("cancel").addEventListener("click", () => Work.current?.end());
