"use strict";
// Each .filters form shows and hides the items of the element that its data-of names.
for (const form of document.querySelectorAll("form.filters")) {
  const items = [...document.querySelectorAll(`#${form.dataset.of} [data-status]`)];
  const show = () => {
    const text = form.elements.text.value.trim().toLowerCase();
    let shown = 0;
    for (const item of items) {
      const chosen = [...form.querySelectorAll("select")].every((s) => !s.value || item.dataset[s.name] === s.value);
      item.hidden = !(chosen && (!text || item.textContent.toLowerCase().includes(text)));
      shown += item.hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = shown === items.length ? "" : `${shown} of ${items.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
}
