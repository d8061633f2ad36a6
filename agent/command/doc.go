// Package command carries out what a signed command orders, at most once,
// whatever cuts it off: a stop, SIGKILL, the power.
//
//	document ── Engine.Take: role, targets, limits ── kept on flash ── its turn: Begin (durable)
//	   └─refused──> up/result/<id>                                        │
//	        up/result/<id> <── result on flash <── End (durable) <── Executor.Do at each meter
//
// # What a command looks like
//
// The header of the document (agent/order) has kind: command, an id, a target
// and not_after. Its payload names an action, the meters that it is for, and
// what the action wants to know:
//
//	action: read
//	meters: [house-07, "31415926"]   # ids of the configuration, serial numbers, or "*" for all
//	with:
//	  groups: [load]
//
// # How to add an action
//
// Write a function that gives an Action, and name it in meterActions
// (meter_actions.go) or gatewayActions. Action.New is called for each command:
// it decodes `with` into a struct with yaml tags (a key that the struct lacks,
// or a wrong type, is an error that names the line), checks what it holds, and
// gives an Executor with it. New runs when the command arrives, before anything
// is answered: an error of it is the reason that the command is refused for. It
// must do nothing else.
//
// The engine does what all actions have in common, so an action never does:
// signatures and roles, expiry, finding the meters, protected meters, the cap of
// disconnects an hour, a second signature, the audit log, remembering what was
// done, results and their delivery, one meter after another or several at once.
//
// # How an executor reaches a meter
//
// Executor.Do is called once for each meter of the command, several of them at
// the same time: an Executor must be safe for that and is best not changed at
// all. It fills a meter.Ask and gives it to Job.Visit, which has the meter
// visited before anything that is due (poll.Poller.Do). What came back is in
// meter.Got; rows in it are not stored, they are the executor's.
//
//	func (d disconnect) Do(ctx context.Context, j *Job) Outcome {
//		got, err := j.Visit(ctx, meter.Ask{Acts: []meter.Act{…}})
//		…
//		return DoneWith("open", rows)
//	}
//
// A context that is cancelled means that the agent stops. What Do gives then is
// not used: at the next start the command goes the way of one that was cut off.
//
// What came of it is one of Done, Refused (nothing was sent that changes
// anything: the meter's state, or a rule, forbids it), Failed (it was tried and
// is known not to have happened) and Unknown (something was sent and nobody
// knows). An error of Visit after an octet of the act may have left is Unknown;
// before that, it is Failed.
//
// # Cuts
//
// Action.AfterCut says what happens with a meter whose turn had begun when
// everything ended:
//
//   - Repeat: Do is called again. For what only reads.
//   - Never: the result is `unknown`, with what Executor's optional method
//     ReadBack finds. Breakers and limits, and whatever is not surely the same
//     when it is done twice. It is never sent again.
//   - Resume: Do is called again with Job.Resumed set, and goes on from what it
//     noted last (Job.Note, Job.Noted): it has to see to it by itself that
//     nothing happens twice. For a firmware transfer, an output, a restart.
//
// Meters whose turn had not begun: with Repeat and Resume they have it now, with
// Never they are `failed`, and the text says that nothing was sent.
//
// # Files
//
// Each command has files in one directory, until its result has arrived:
//
//	<id>.doc      the document as it came, from the moment it is accepted
//	<id>.log      a line of JSON for each meter that began and ended, and notes
//	<id>.result   the result, until the broker has it
//	<id>.data     what the result is too long for, likewise
//
// That a command was begun is in the state file (Memory.Begin), durable before
// anything is done, and stays there until the command has expired.
package command
