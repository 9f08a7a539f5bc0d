// What scrolls can be reached by the keyboard, the search has a name, and so has every button to copy.
window.addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search")
  for (const part of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    part.setAttribute("tabindex", "0")
  }
  for (const [n, part] of document.querySelectorAll(".md-code__nav").entries()) {
    part.setAttribute("aria-label", `Code block ${n + 1}`)
  }
})
