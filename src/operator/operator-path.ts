/** Where the operator's API lives on the client listener. */
export const OPERATOR_PATH = "/_fastjoin/v1";
