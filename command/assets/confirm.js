// Every act is confirmed in one dialog, which also shows why the server refused it.
import { $, text } from "./page.js";

let pending = null;

/**
 * Shows what is about to happen; `act` runs when it is confirmed. A failure is shown, and the dialog stays open.
 * `fields` are elements of the act's own; `then` receives what `act` returned, after the dialog has closed.
 */
export function confirm({ title, about, yes, fields = [], act, then = () => {} }) {
  pending = { act, then };
  text($("confirm-title"), title);
  text($("confirm-text"), about);
  text($("confirm-yes"), yes);
  $("confirm-fields").replaceChildren(...fields);
  $("confirm-error").hidden = true;
  busy(false);
  $("confirm").showModal();
}

function busy(is) {
  for (const id of ["confirm-yes", "confirm-no"]) $(id).disabled = is;
}

async function run() {
  const own = pending;
  busy(true);
  try {
    const result = await own.act();
    // Whoever closed the dialog by force may have opened it for another act.
    if (pending !== own) return;
    // Closing returns the focus to where it was.
    $("confirm").close();
    own.then(result);
  } catch (error) {
    if (pending !== own) return;
    busy(false);
    $("confirm-error").hidden = false;
    text($("confirm-error"), error.message);
    $("confirm-yes").focus();
  }
}

$("confirm-yes").addEventListener("click", run);
$("confirm-no").addEventListener("click", () => $("confirm").close());
// The Escape key.
$("confirm").addEventListener("cancel", (event) => {
  if ($("confirm-no").disabled) event.preventDefault();
});
