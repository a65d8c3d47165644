import type { RoomsContext } from "../rooms/context.ts";
import type { ResyncWorkflows } from "./resync-workflows.ts";

/** What the operator's use cases need beyond the rooms'. */
export interface OperatorContext extends RoomsContext {
  readonly workflows: ResyncWorkflows;
}
