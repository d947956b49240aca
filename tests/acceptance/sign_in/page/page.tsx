// Signs in with tokens of the issuer that the address names: what a page does with the official React client.
import { Authenticated, AuthLoading, ConvexProviderWithAuth, ConvexReactClient, Unauthenticated, useMutation, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import { useCallback, useState } from "react";
import { createRoot } from "react-dom/client";

const client = new ConvexReactClient(location.origin);
const issuer = new URLSearchParams(location.search).get("issuer");
let setSubject: (subject: string | null) => void = () => {};

function useAuth() {
  const [subject, set] = useState<string | null>(null);
  setSubject = set;
  const fetchAccessToken = useCallback(
    async ({ forceRefreshToken }: { forceRefreshToken: boolean }) => {
      const answer = await fetch(`${issuer}/token?sub=${subject}&force=${forceRefreshToken}`);
      return answer.ok ? await answer.text() : null;
    },
    [subject],
  );
  return { isLoading: false, isAuthenticated: subject !== null, fetchAccessToken };
}

function Notes() {
  const notes = useQuery(api.notes.mine);
  const add = useMutation(api.notes.add);
  const [failure, setFailure] = useState("");
  return (
    <>
      <ul>{notes?.map((note: string, at: number) => <li key={at}>{note}</li>)}</ul>
      <button onClick={() => add({ text: "hello" }).catch((error: Error) => setFailure(error.message))}>Add</button>
      <p role="alert">{failure}</p>
    </>
  );
}

function Page() {
  const me = useQuery(api.notes.me);
  return (
    <>
      <p role="status">{me === undefined ? "…" : (me ?? "nobody")}</p>
      <button onClick={() => setSubject("ann")}>Sign in as Ann</button>
      <button onClick={() => setSubject("bob")}>Sign in as Bob</button>
      <button onClick={() => setSubject(null)}>Sign out</button>
      <AuthLoading>Loading</AuthLoading>
      <Unauthenticated>Signed out</Unauthenticated>
      <Authenticated>
        <Notes />
      </Authenticated>
    </>
  );
}

createRoot(document.getElementById("root")!).render(
  <ConvexProviderWithAuth client={client} useAuth={useAuth}>
    <Page />
  </ConvexProviderWithAuth>,
);
