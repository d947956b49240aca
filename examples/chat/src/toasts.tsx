import { ConvexError } from "convex/values";
import { createContext, useCallback, useContext, useRef, useState, type ReactNode } from "react";
import { CloseIcon } from "./icons";

type Toast = { id: number; text: string };

const SHOWN_MS = 6000;
const Context = createContext<(error: unknown) => void>(() => {});

/** Gives a function that tells the user about an error. */
export const useToast = () => useContext(Context);

/** Application errors carry a text for people; anything else is a fault of ours or of the network. */
function textOf(error: unknown): string {
  if (error instanceof ConvexError && typeof error.data?.message === "string") return error.data.message;
  console.error(error);
  return "That did not work. Please try again.";
}

export function ToastProvider({ children }: { children: ReactNode }) {
  const [toasts, setToasts] = useState<Toast[]>([]);
  const nextId = useRef(0);

  const close = useCallback((id: number) => setToasts((all) => all.filter((toast) => toast.id !== id)), []);
  const show = useCallback(
    (error: unknown) => {
      const id = nextId.current++;
      setToasts((all) => [...all.slice(-2), { id, text: textOf(error) }]);
      setTimeout(() => close(id), SHOWN_MS);
    },
    [close],
  );

  return (
    <Context value={show}>
      {children}
      <div className="toasts" role="alert">
        {toasts.map((toast) => (
          <div className="toast" key={toast.id}>
            <span>{toast.text}</span>
            <button className="icon-button" aria-label="Dismiss" onClick={() => close(toast.id)}>
              <CloseIcon />
            </button>
          </div>
        ))}
      </div>
    </Context>
  );
}
