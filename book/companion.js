// What the makers of the pages offer no setting for.
"use strict";

addEventListener("DOMContentLoaded", () => {
  // Docutils gives the entries of a bibliography a role that no list may hold.
  for (const entry of document.querySelectorAll('[role="doc-biblioentry"]')) entry.setAttribute("role", "listitem");
  // Figures stand bare in a cell's output; in an element like other outputs they scroll, by keyboard too.
  for (const image of document.querySelectorAll(".cell_output > img, .cell_output > figure > img")) {
    const frame = document.createElement("div");
    frame.className = "output";
    if (matchMedia("(max-width: 576px)").matches) frame.tabIndex = 0;
    image.replaceWith(frame);
    frame.append(image);
  }
});
