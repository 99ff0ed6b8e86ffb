"use strict";
// Each .filters form shows and hides the items of the element that its data-of names. The address's fragment keeps what is
// chosen, and where the reader is: #failures.level=reader-core&failures.text=gap&at=check-gap-past-the-end.
const forms = [...document.querySelectorAll("form.filters")].map((form) => {
  const items = [...document.querySelectorAll(`#${form.dataset.of} [data-status]`)];
  return { form, items, controls: [...form.querySelectorAll("input, select")], texts: new Map() };
});

function show({ form, items, controls, texts }) {
  const chosen = controls.filter(({ value }) => value.trim());
  let shown = 0;
  for (const item of items) {
    item.hidden = !chosen.every(({ name, value }) => {
      if (name !== "text") return item.dataset[name] === value;
      if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase());
      return texts.get(item).includes(value.trim().toLowerCase());
    });
    shown += item.hidden ? 0 : 1;
  }
  form.querySelector("output").textContent = chosen.length ? `${shown} of ${items.length}` : "";
  form.querySelector("button").hidden = !chosen.length;
  if (chosen.length) form.closest("details")?.setAttribute("open", "");
}

function keep(at = new URLSearchParams(location.hash.slice(1)).get("at")) {
  const kept = new URLSearchParams();
  for (const { form, controls } of forms) {
    for (const { name, value } of controls) if (value.trim()) kept.set(`${form.dataset.of}.${name}`, value.trim());
  }
  if (at) kept.set("at", at);
  history.replaceState(null, "", `#${kept}`);
}

function goTo(id) {
  const target = document.getElementById(id);
  if (!target) return;
  for (const each of forms) {
    if (!each.items.includes(target) || !target.hidden) continue;
    for (const control of each.controls) control.value = "";
    show(each);
    keep(id);
  }
  document.querySelector(".at")?.classList.remove("at");
  target.classList.add("at");
  for (let details = target.closest("details"); details; details = details.parentElement.closest("details")) details.open = true;
  target.scrollIntoView();
}

// A fragment without "=" is a link of the page itself, which leaves the filters as they are.
function read() {
  const fragment = decodeURIComponent(location.hash.slice(1));
  if (fragment && !fragment.includes("=")) {
    goTo(fragment);
    keep(fragment);
    return;
  }
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const each of forms) {
    for (const control of each.controls) {
      control.value = kept.get(`${each.form.dataset.of}.${control.name}`) ?? "";
      if (control.selectedIndex === -1) control.value = "";
    }
    show(each);
  }
  if (kept.has("at")) goTo(kept.get("at"));
}

for (const each of forms) {
  each.form.hidden = false;
  each.form.addEventListener("input", () => {
    show(each);
    keep("");
  });
  each.form.addEventListener("reset", () => setTimeout(() => {
    show(each);
    keep("");
  }));
  each.form.addEventListener("submit", (event) => event.preventDefault());
}
addEventListener("hashchange", read);
read();
