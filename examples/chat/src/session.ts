// Who this browser is: a secret it made up once. With ?guest in the address the window is someone of its own,
// so that one browser can hold two people.
const KEY = "reactor-chat-session";

export const isGuest = new URLSearchParams(location.search).has("guest");
const storage = isGuest ? sessionStorage : localStorage;

function newSecret(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(24)); // randomUUID() is missing on plain http
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const session: string = storage.getItem(KEY) ?? newSecret();
storage.setItem(KEY, session);

export function signOut(): void {
  storage.removeItem(KEY);
  location.reload();
}
