(() => {
  "use strict";
  const viewer = document.getElementById("viewer");
  const cases = [...viewer.querySelectorAll(".case")];
  const groups = [...viewer.querySelectorAll(".group")];
  const controls = viewer.querySelector(".controls");
  const status = controls.querySelector("[role=status]");
  const button = (name) => controls.querySelector(`[data-do=${name}]`);
  const layers = [...controls.querySelectorAll("[data-layer]")];
  let current = 0;

  function show(number) {
    current = Math.min(Math.max(number, 0), cases.length - 1);
    cases.forEach((one, place) => one.classList.toggle("current", place === current));
    groups.forEach((one) => one.classList.toggle("current", one.contains(cases[current])));
    button("previous").setAttribute("aria-disabled", String(current === 0));
    button("next").setAttribute("aria-disabled", String(current === cases.length - 1));
    status.textContent = `${current + 1} of ${cases.length}: ${cases[current].dataset.title}`;
  }

  function showAll(all) {
    viewer.classList.toggle("stepping", !all);
    button("all").setAttribute("aria-pressed", String(all));
  }

  function step(number) {
    showAll(false);
    show(number);
  }

  function showLayer(box) {
    viewer.classList.toggle(`without-${box.dataset.layer}`, !box.checked);
  }

  function turnLayer(key) {
    const box = layers.find((one) => one.dataset.key === key);
    if (!box) return false;
    box.checked = !box.checked;
    showLayer(box);
    return true;
  }

  const steps = {
    ArrowRight: () => step(current + 1),
    ArrowLeft: () => step(current - 1),
    Home: () => step(0),
    End: () => step(cases.length - 1),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const inside = viewer.contains(event.target);
    const nowhere = event.target === document.body && event.key.startsWith("Arrow");
    if (event.key in steps && (inside || nowhere)) {
      if (nowhere) viewer.focus();
      steps[event.key]();
      event.preventDefault();
    } else if (inside && turnLayer(event.key.toLowerCase())) {
      event.preventDefault();
    }
  });
  button("previous").addEventListener("click", () => step(current - 1));
  button("next").addEventListener("click", () => step(current + 1));
  button("all").addEventListener("click", () => showAll(viewer.classList.contains("stepping")));
  layers.forEach((box) => box.addEventListener("change", () => showLayer(box)));

  layers.forEach(showLayer);
  viewer.tabIndex = 0;
  controls.hidden = false;
  step(0);
})();
