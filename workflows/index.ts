export { reconcile } from "./reconcile.ts";
export { resync } from "./resync-room.ts";
