// A question that has to be answered before anything else.

import { element } from "./dom.js";

/** Ask whether to do something; true if the button named `act` was chosen. */
export function ask(question, consequence, act) {
  return new Promise((answered) => {
    const dialog = element(
      "dialog",
      { "aria-labelledby": "question" },
      element(
        "form",
        { method: "dialog" },
        element("h2", { id: "question" }, question),
        element("p", {}, consequence),
        element("div", {}, element("button", { type: "submit", value: "no" }, "Cancel"), element("button", { type: "submit", class: "main", value: "yes" }, act)),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      answered(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
