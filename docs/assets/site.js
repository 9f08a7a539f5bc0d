// What scrolls can be reached by the keyboard, the search has a name, and a button to copy is no landmark.
window.addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search")
  for (const part of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    part.setAttribute("tabindex", "0")
  }
  for (const part of document.querySelectorAll(".md-code__nav")) part.setAttribute("role", "group")
})
