/**
 * The modules of `effect-codex`, an Effect-native SDK for `codex app-server`.
 *
 * @since 0.1.0
 */
export * as ApprovalMode from "./ApprovalMode.ts"
export * as ApprovalPolicy from "./ApprovalPolicy.ts"
export * as Approvals from "./Approvals.ts"
export * as AppServer from "./AppServer.ts"
export * as AppServerError from "./AppServerError.ts"
export * as Budget from "./Budget.ts"
export * as Codex from "./Codex.ts"
export * as CodexPool from "./CodexPool.ts"
export * as Input from "./Input.ts"
export * as Metadata from "./Metadata.ts"
export * as Protocol from "./Protocol.ts"
export * as Questions from "./Questions.ts"
export * as RateLimits from "./RateLimits.ts"
export * as Sandbox from "./Sandbox.ts"
export * as SocketTransport from "./SocketTransport.ts"
export * as StdioTransport from "./StdioTransport.ts"
export * as TerminalView from "./TerminalView.ts"
export * as Thread from "./Thread.ts"
export * as ThreadView from "./ThreadView.ts"
export * as Tool from "./Tool.ts"
export * as Transport from "./Transport.ts"
export * as Turn from "./Turn.ts"
export * as TurnView from "./TurnView.ts"
export * as Usage from "./Usage.ts"
