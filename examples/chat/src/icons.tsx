import type { ReactNode } from "react";

function icon(drawing: ReactNode) {
  return function Icon() {
    return (
      <svg viewBox="0 0 20 20" width="18" height="18" fill="none" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
        {drawing}
      </svg>
    );
  };
}

export const SendIcon = icon(<path d="M3.5 10 16.5 4l-4 13-3-5.5zM9.5 11.5l7-7.5" />);
export const MenuIcon = icon(<path d="M3 5.5h14M3 10h14M3 14.5h14" />);
export const PeopleIcon = icon(
  <path d="M7.5 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM2 16.5c0-3 2.5-4.5 5.5-4.5s5.5 1.5 5.5 4.5M13 3.800a3 3 0 0 1 0 5.4M15.5 12.5c1.6.6 2.5 2 2.5 4" />,
);
export const CloseIcon = icon(<path d="m5 5 10 10M15 5 5 15" />);
export const PlusIcon = icon(<path d="M10 4v12M4 10h12" />);
export const EditIcon = icon(<path d="m4 16 .8-3.5L13.5 3.800a1.4 1.4 0 0 1 2 0l.7.7a1.4 1.4 0 0 1 0 2L7.5 15.200z" />);
export const TrashIcon = icon(<path d="M4 5.5h12M8 5.5V3.5h4v2M5.5 5.5l.7 11h7.6l.7-11M8.5 8.5v5M11.5 8.5v5" />);
export const DownIcon = icon(<path d="M10 4v12m-5-5 5 5 5-5" />);
export const SmileIcon = icon(
  <>
    <circle cx="10" cy="10" r="7" />
    <path d="M7 11.5c.6 1.300 1.700 2 3 2s2.4-.7 3-2M7.5 7.700v.1M12.5 7.700v.1" />
  </>,
);
export const WindowIcon = icon(<path d="M11 3.5h5.5V9M16.5 3.5 9 11M8 5H4.5v10.5H15V12" />);
export const ExitIcon = icon(<path d="M8 3.5H4v13h4M8 10h9m-3-3 3 3-3 3" />);

export function Logo() {
  return <img className="logo" src="favicon.svg" alt="" width="32" height="32" />;
}
