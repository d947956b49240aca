import { optimisticallyUpdateValueInPaginatedQuery, useMutation } from "convex/react";
import { Fragment, memo, useEffect, useRef, useState, type KeyboardEvent } from "react";
import { api, EMOJIS, type Emoji, type Message, type User } from "./api";
import { Avatar } from "./Avatar";
import type { People } from "./Chat";
import { EditIcon, TrashIcon } from "./icons";
import { session } from "./session";
import { useToast } from "./toasts";
import { isUnsent } from "./unsent";

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

type Props = {
  me: User;
  message: Message;
  people: People;
  together: boolean;
  editing: boolean;
  setEditing: (on: boolean) => void;
};

export const MessageRow = memo(function MessageRow({ me, message, people, together, editing, setEditing }: Props) {
  const author = people.get(message.author);
  const unsent = isUnsent(message);
  const time = timeFormat.format(message._creationTime);
  const react = useReact(me, message);
  return (
    <li className="message" data-together={together || undefined} data-unsent={unsent || undefined}>
      {together ? <time className="gutter">{time}</time> : <Avatar user={author} />}
      <div className="content">
        {!together && (
          <div className="byline">
            <strong>{author?.name ?? "Someone who left"}</strong>
            <time dateTime={new Date(message._creationTime).toISOString()}>{time}</time>
          </div>
        )}
        {editing ? <EditBody message={message} onDone={() => setEditing(false)} /> : <Body message={message} />}
        {message.reactions.length > 0 && <Reactions me={me} message={message} people={people} onReact={react} />}
      </div>
      {!unsent && !editing && <Actions own={message.author === me._id} message={message} onReact={react} onEdit={() => setEditing(true)} />}
    </li>
  );
});

/** The text with its links and `code` marked. */
function Body({ message }: { message: Message }) {
  const parts = message.body.split(/(https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)])|`([^`\n]+)`/);
  return (
    <p className="body">
      {parts.map((part, index) => {
        if (part === undefined) return null;
        if (index % 3 === 1) {
          return (
            <a href={part} target="_blank" rel="noopener noreferrer" key={index}>
              {part}
            </a>
          );
        }
        return index % 3 === 2 ? <code key={index}>{part}</code> : <Fragment key={index}>{part}</Fragment>;
      })}
      {message.edited && <small className="edited"> (edited)</small>}
    </p>
  );
}

function EditBody({ message, onDone }: { message: Message; onDone: () => void }) {
  const [body, setBody] = useState(message.body);
  const field = useRef<HTMLTextAreaElement>(null);
  const showError = useToast();
  const edit = useMutation(api.messages.edit).withOptimisticUpdate((store, args) => {
    optimisticallyUpdateValueInPaginatedQuery(store, api.messages.page, { channel: message.channel }, (other) =>
      other._id === args.message ? { ...other, body: args.body.trim(), edited: Date.now() } : other,
    );
  });

  useEffect(() => field.current?.setSelectionRange(body.length, body.length), []);

  function save() {
    onDone();
    if (body.trim() !== message.body) edit({ session, message: message._id, body }).catch(showError);
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.key === "Escape") onDone();
    if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
      event.preventDefault();
      save();
    }
  }

  return (
    <div className="edit">
      <textarea ref={field} autoFocus rows={Math.min(8, body.split("\n").length)} aria-label="Edit the message" value={body} onChange={(event) => setBody(event.target.value)} onKeyDown={onKeyDown} />
      <div className="edit-buttons">
        <button onClick={onDone}>Cancel</button>
        <button className="primary" disabled={!body.trim()} onClick={save}>
          Save
        </button>
      </div>
    </div>
  );
}

function Actions({ own, message, onReact, onEdit }: { own: boolean; message: Message; onReact: (emoji: Emoji) => void; onEdit: () => void }) {
  const remove = useMutation(api.messages.remove);
  const showError = useToast();

  function onRemove() {
    if (confirm("Remove this message for everyone?")) remove({ session, message: message._id }).catch(showError);
  }

  return (
    <div className="actions" role="toolbar" aria-label="Message actions">
      {EMOJIS.map((emoji) => (
        <button key={emoji} className="icon-button emoji" aria-label={`React with ${emoji}`} onClick={() => onReact(emoji)}>
          {emoji}
        </button>
      ))}
      {own && (
        <>
          <button className="icon-button" aria-label="Edit" onClick={onEdit}>
            <EditIcon />
          </button>
          <button className="icon-button danger" aria-label="Remove" onClick={onRemove}>
            <TrashIcon />
          </button>
        </>
      )}
    </div>
  );
}

function Reactions({ me, message, people, onReact }: { me: User; message: Message; people: People; onReact: (emoji: Emoji) => void }) {
  return (
    <ul className="reactions">
      {message.reactions.map(({ emoji, users }) => (
        <li key={emoji}>
          <button
            aria-pressed={users.includes(me._id)}
            aria-label={`${emoji} ${users.length}`}
            title={users.map((id) => people.get(id)?.name).join(", ")}
            onClick={() => onReact(emoji)}
          >
            <span className="emoji">{emoji}</span> {users.length}
          </button>
        </li>
      ))}
    </ul>
  );
}

/** Adds this user's reaction or takes it back, here at once and then on the server. */
function useReact(me: User, message: Message): (emoji: Emoji) => void {
  const showError = useToast();
  const react = useMutation(api.messages.react).withOptimisticUpdate((store, args) => {
    optimisticallyUpdateValueInPaginatedQuery(store, api.messages.page, { channel: message.channel }, (other) =>
      other._id === args.message ? { ...other, reactions: toggled(other.reactions, args.emoji, me) } : other,
    );
  });
  return (emoji) => void react({ session, message: message._id, emoji }).catch(showError);
}

function toggled(reactions: Message["reactions"], emoji: Emoji, me: User): Message["reactions"] {
  const users = reactions.find((each) => each.emoji === emoji)?.users ?? [];
  const after = users.includes(me._id) ? users.filter((id) => id !== me._id) : [...users, me._id];
  const known = reactions.some((each) => each.emoji === emoji);
  const all = known ? reactions.map((each) => (each.emoji === emoji ? { emoji, users: after } : each)) : [...reactions, { emoji, users: after }];
  return all.filter((each) => each.users.length > 0);
}
