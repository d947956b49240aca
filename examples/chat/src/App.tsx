import { useConvexConnectionState, useQuery } from "convex/react";
import { api } from "./api";
import { Chat } from "./Chat";
import { Logo } from "./icons";
import { Join } from "./Join";
import { session } from "./session";

export function App() {
  const me = useQuery(api.users.me, { session });
  if (me === undefined) return <Connecting />;
  return me ? <Chat me={me} /> : <Join />;
}

function Connecting() {
  const { connectionRetries } = useConvexConnectionState();
  return (
    <main className="splash" aria-busy="true">
      <Logo />
      <p className="muted" role="status">
        {connectionRetries > 0 ? "The server does not answer. Trying again…" : "Connecting…"}
      </p>
    </main>
  );
}
