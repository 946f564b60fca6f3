"use strict";
// Sorting, cards where a table does not fit a telephone, the theme, and the comparison of two pictures. Without it all is readable.

function sort(table, column, header) {
  const down = header.getAttribute("aria-sort") !== "descending";
  const key = (row) => row.cells[column].dataset.sort;
  const number = (text) => (text === "" || isNaN(text) ? null : Number(text));
  const rows = [...table.tBodies[0].rows].sort((one, other) => {
    const [a, b] = [number(key(one)), number(key(other))];
    if (a === null && b === null) return key(one).localeCompare(key(other)) * (down ? -1 : 1);
    if (a === null || b === null) return a === null ? 1 : -1; // what has no value is last either way
    return (a - b) * (down ? -1 : 1);
  });
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll(".frame > table")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => sort(table, column, header));
  });
  new ResizeObserver(() => {
    table.classList.remove("narrow");
    table.classList.toggle("narrow", innerWidth < 760 && table.offsetWidth > table.parentElement.clientWidth);
    const wide = table.offsetWidth > table.parentElement.clientWidth;
    table.parentElement.classList.toggle("wide", wide);
    if (wide) table.parentElement.tabIndex = 0; else table.parentElement.removeAttribute("tabindex");
  }).observe(table.parentElement);
}

const theme = document.querySelector("#theme");
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  theme.setAttribute("aria-pressed", String(!dark));
});

for (const shown of document.querySelectorAll(".case")) {
  const viewer = shown.querySelector(".viewer");
  const wipe = viewer.querySelector(".wipe");
  const [under, over] = wipe.querySelectorAll("img");
  const control = (name) => viewer.querySelector(`[name=${name}]`);
  const buttons = [...shown.querySelectorAll(".strip button")];
  const pictures = buttons.map((button) => {
    const image = button.querySelector("img");
    // The slice that is shown at first is not written twice.
    const uris = JSON.parse(image.dataset.slices).map((uri) => uri ?? image.src);
    return { image, uris, alt: image.alt };
  });
  const places = JSON.parse(viewer.dataset.places);
  const show = () => {
    const slice = control("slice") ? Number(control("slice").value) : 0;
    pictures.forEach((each) => { each.image.src = each.uris[slice]; });
    for (const [image, name] of [[under, "left"], [over, "right"]]) {
      const picture = pictures[Number(control(name).value)];
      image.src = picture.uris[slice];
      image.alt = `${picture.alt.split(",")[0]}, ${places[slice]}`;
      wipe.querySelector(`.name.${name}`).textContent = control(name).selectedOptions[0].textContent;
    }
    if (control("slice")) control("slice").setAttribute("aria-valuetext", places[slice]);
    viewer.querySelector("output").textContent = places[slice];
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(number === Number(control("right").value))));
  };
  buttons.forEach((button, number) => {
    button.addEventListener("click", () => { control("right").value = String(number); show(); });
  });
  for (const name of ["left", "right", "slice"]) control(name)?.addEventListener("input", show);
  control("wipe").addEventListener("input", (event) => wipe.style.setProperty("--at", `${event.target.value}%`));
  control("zoom").addEventListener("input", (event) => wipe.style.setProperty("--zoom", event.target.value));
  viewer.hidden = false;
  show();
}

addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
