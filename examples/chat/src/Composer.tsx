import { insertAtTop, useMutation } from "convex/react";
import { useEffect, useRef, useState, type FormEvent, type KeyboardEvent } from "react";
import { api, type ChannelSummary, type Id, type User } from "./api";
import { SendIcon } from "./icons";
import { session } from "./session";
import { useToast } from "./toasts";
import { unsentId } from "./unsent";

const TYPING_AGAIN_MS = 3000;

type Props = { me: User; channel: ChannelSummary; onEditLast: () => void };

export function Composer({ me, channel, onEditLast }: Props) {
  const [body, setBody] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const showError = useToast();
  const typing = useTyping(channel.id);

  const send = useMutation(api.messages.send).withOptimisticUpdate((localQueryStore, { channel, body }) => {
    insertAtTop({
      paginatedQuery: api.messages.page,
      argsToMatch: { channel },
      localQueryStore,
      item: {
        _id: unsentId(),
        _creationTime: Date.now(),
        channel,
        author: me._id,
        body: body.trim(),
        reactions: [],
      },
    });
  });

  // The field grows with its text.
  useEffect(() => {
    if (!field.current) return;
    field.current.style.height = "auto";
    field.current.style.height = `${field.current.scrollHeight}px`;
  }, [body]);

  function submit(event: FormEvent) {
    event.preventDefault();
    if (!body.trim()) return;
    typing.sent();
    setBody("");
    field.current?.focus();
    send({ session, channel: channel.id, body }).catch((error) => {
      setBody((newer) => newer || body); // nothing that was written is lost
      showError(error);
    });
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) submit(event);
    if (event.key === "ArrowUp" && !body) {
      event.preventDefault();
      onEditLast();
    }
  }

  return (
    <form className="composer" onSubmit={submit}>
      <textarea
        ref={field}
        rows={1}
        value={body}
        aria-label={`Message to #${channel.name}`}
        placeholder={`Message #${channel.name}`}
        maxLength={4000}
        autoFocus={matchMedia("(pointer: fine)").matches}
        onChange={(event) => {
          setBody(event.target.value);
          typing.changed(event.target.value);
        }}
        onKeyDown={onKeyDown}
      />
      <button className="send" aria-label="Send" disabled={!body.trim()}>
        <SendIcon />
      </button>
    </form>
  );
}

/** Tells the others that this user is writing, every few seconds while they are, and once when they stop. */
function useTyping(channel: Id<"channels">) {
  const setTyping = useMutation(api.presence.set_typing);
  const told = useRef(0); // when the others were last told; 0: they think that nobody writes

  function tell(typing: boolean) {
    told.current = typing ? Date.now() : 0;
    // Not worth an error: the indicator goes away by itself.
    void setTyping({ session, channel, typing }).catch(() => {});
  }

  useEffect(() => () => void (told.current && tell(false)), [channel]);

  return {
    changed(text: string) {
      if (!text.trim()) {
        if (told.current) tell(false);
      } else if (Date.now() - told.current > TYPING_AGAIN_MS) {
        tell(true);
      }
    },
    /** The message itself takes the indicator away. */
    sent() {
      told.current = 0;
    },
  };
}
