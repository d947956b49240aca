import { useMutation, useQuery } from "convex/react";
import { useState, type FormEvent } from "react";
import { api } from "./api";
import { Avatar } from "./Avatar";
import { Logo } from "./icons";
import { session } from "./session";
import { useToast } from "./toasts";

const FACES = 5;

export function Join() {
  const [name, setName] = useState("");
  const [busy, setBusy] = useState(false);
  const join = useMutation(api.users.join);
  const showError = useToast();

  async function enter(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    await join({ session, name }).catch(showError);
    setBusy(false);
  }

  return (
    <main className="splash">
      <form className="card" onSubmit={enter}>
        <Logo />
        <h1>Reactor chat</h1>
        <p className="muted">Choose a name and come in. Everything you see stays live.</p>
        <label htmlFor="name">Your name</label>
        <input id="name" value={name} onChange={(event) => setName(event.target.value)} placeholder="Ada Lovelace" maxLength={40} autoComplete="nickname" autoFocus />
        <button className="primary" disabled={busy || !name.trim()}>
          Enter the chat
        </button>
        <Present />
      </form>
    </main>
  );
}

/** Who can be met inside. */
function Present() {
  const people = useQuery(api.users.everyone);
  const here = useQuery(api.presence.here);
  if (!people || !here?.length) return null;
  const present = people.filter((person) => here.includes(person._id));
  const names = present.slice(0, 2).map((person) => person.name);
  const more = present.length - names.length;
  return (
    <p className="present muted">
      <span className="faces">
        {present.slice(0, FACES).map((person) => (
          <Avatar user={person} key={person._id} />
        ))}
      </span>
      {names.join(", ")} {more > 0 && `and ${more} more `}
      {present.length === 1 ? "is here" : "are here"}
    </p>
  );
}
