package storetest_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

// copies lets the suite copy rows.
var copies = storetest.Copies(func(_ *testing.T, s store.Store, from, to store.ID) {
	s.(interface{ copyRow(from, to store.ID) }).copyRow(from, to)
})

// TestSuitePassesACorrectStore shows that failures in the other tests here come
// from the fault, not from the store.
func TestSuitePassesACorrectStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return newSimple("") }, copies, storetest.Records(5_000))
}

// TestSuitePassesAStoreThatCanDoNothingElse: the optional interfaces are
// optional.
func TestSuitePassesAStoreThatCanDoNothingElse(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return struct{ store.Store }{newSimple("")}
	}, storetest.Records(5_000))
}

// TestSuitePassesAStoreWithNativeExpiry: records may vanish at their deadline.
func TestSuitePassesAStoreWithNativeExpiry(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s := newSimple("")
		s.expires = true
		return struct { // everything but Sweep
			store.Store
			store.Toucher
			store.UserIndex
			store.UserLimiter
			store.EndFeed
			store.Scanner
			store.Counter
		}{s, s, s, s, s, s, s}
	})
}

// faults are a store's possible mistakes, each with a subtest that must detect
// it.
var faults = []struct{ name, noticedBy string }{
	{"insert replaces a live record", "Save/an_insert_does_not_replace_a_live_record"},
	{"insert keeps an expired record", "Save/an_insert_replaces_a_record_past_its_deadline"},
	{"update creates", "Save/a_save_does_not_create_a_record"},
	{"version not compared", "Save/a_save_on_a_version_that_is_not_there_yet_conflicts"},
	{"save ID not compared", "Save/a_save_on_the_same_version_with_another_save_ID_conflicts"},
	{"any recent save ID compared", "Save/a_save_compares_with_the_newest_save_ID_only"},
	{"save moves times back", "Save/Seen_and_Deadline_never_move_backwards"},
	{"shorten ignored", "Save/with_Shorten_they_do"},
	{"shorten stored", "Save/with_Shorten_they_do"},
	{"times in seconds", "Save/times_are_kept_to_the_millisecond,_in_UTC"},
	{"times not in UTC", "Save/times_are_kept_to_the_millisecond,_in_UTC"},
	{"zero times lost", "Save/zero_times_stay_zero"},
	{"data is text", "Save/every_kind_of_data_is_kept"},
	{"numbers are floats", "Save/every_kind_of_ID,_user_and_number_is_kept"},
	{"ID is text", "Save/every_kind_of_ID,_user_and_number_is_kept"},
	{"ID cut short", "Save/records_with_nearly_the_same_ID_are_apart"},
	{"save IDs shared with the loader", "Save/who_loads_a_record_may_change_its_fields_and_save_IDs"},
	{"save IDs shared with the saver", "Save/who_saved_a_record_may_change_its_fields_and_save_IDs"},
	{"own save ID not looked for", "Resend/a_save_sent_twice_is_saved_once"},
	{"only the newest save ID looked for", "Resend/a_save_is_recognised_below_later_ones_and_not_applied_again"},
	{"one save ID too few kept", "Resend/a_save_is_recognised_below_later_ones_and_not_applied_again"},
	{"own save ID overwrites", "Resend/the_second_of_two_copies_under_way_is_fenced_off"},
	{"own save ID not looked for in marks", "Resend/a_tombstone_sent_twice_is_saved_once"},
	{"Delete forgets the save IDs", "Resend/a_save_below_a_Delete_is_recognised_and_leaves_the_mark"},
	{"not atomic", "Parallel/64_writers'_increments_add_up"},
	{"not atomic", "Parallel/of_64_inserts_one_wins"},
	{"not atomic", "Parallel/of_64_saves_on_one_base_one_wins"},
	{"update after the end", "End/a_tombstone_refuses_every_save"},
	{"insert after the end", "End/a_tombstone_refuses_every_save"},
	{"mark not compared", "End/a_tombstone_is_compared_like_every_save"},
	{"mark takes the later deadline", "End/a_tombstone_takes_its_own_deadline,_earlier_than_the_session's"},
	{"Delete removes", "End/Delete_leaves_a_tombstone_until_the_given_time"},
	{"Delete removes", "End/after_Delete_no_late_save_makes_the_session_live"},
	{"Delete keeps data", "End/Delete_leaves_a_tombstone_until_the_given_time"},
	{"Delete keeps the deadline", "End/Delete_leaves_a_tombstone_until_the_given_time"},
	{"Delete of nothing leaves no mark", "End/Delete_of_an_unknown_ID_leaves_a_mark_that_refuses_an_insert"},
	{"Delete again moves Ended", "End/Delete_again_changes_nothing_but_a_later_deadline"},
	{"Delete again forgets the user", "End/Delete_again_changes_nothing_but_a_later_deadline"},
	{"Delete again moves the deadline back", "End/Delete_again_changes_nothing_but_a_later_deadline"},
	{"context ignored", "Context/a_call_whose_context_is_over_fails_and_changes_nothing_for_good"},
	{"cancelled saves get another save ID", "Context/saves_cancelled_half-way_are_settled_by_sending_them_again"},
	{"large data cut", "Size/512_KiB_are_kept"},
	{"large data cut", "Size/1_MiB_is_kept,_or_refused_with_the_record_untouched"},
	{"IDs cut to 8 bits", "Size/many_records_are_kept_apart"},
	{"version not compared", "Model/random_calls_have_the_outcomes_of_the_contract"},
	{"touch moves back", "Touch/never_moves_either_of_them_backwards"},
	{"touch raises the version", "Touch/moves_Seen_and_Deadline_forward,_and_nothing_else"},
	{"touch creates", "Touch/of_an_unknown_ID_is_not_found_and_creates_nothing"},
	{"touch extends marks", "Touch/of_an_ended_session_is_not_found_and_changes_nothing"},
	{"touch in seconds", "Touch/keeps_the_millisecond"},
	{"sweep too eager", "Sweep/removes_what_is_over,_and_nothing_else"},
	{"sweep takes live marks", "Sweep/removes_what_is_over,_and_nothing_else"},
	{"sweep leaves marks", "Sweep/removes_what_is_over,_and_nothing_else"},
	{"sweep has no limit", "Sweep/works_in_batches"},
	{"sweep miscounts", "Sweep/may_run_several_times_at_once,_beside_saves"},
	{"sweep by first deadline", "Sweep/uses_the_newest_deadline"},
	{"index lists marks", "ByUser/lists_no_tombstones"},
	{"index keeps the first user", "ByUser/follows_a_record_from_user_to_user"},
	{"index lists nobody", "ByUser/nobody_has_no_sessions"},
	{"index holds 100", "ByUser/holds_200_sessions_of_one_user_among_those_of_others"},
	{"limit leaves one too few", "SaveLimited/saves_and_ends_nothing_while_there_is_room"},
	{"limit leaves one too many", "SaveLimited/ends_the_oldest_sessions_to_make_room,_and_says_which"},
	{"limit evicts the newest", "SaveLimited/ends_the_oldest_sessions_to_make_room,_and_says_which"},
	{"limit does not say which", "SaveLimited/ends_the_oldest_sessions_to_make_room,_and_says_which"},
	{"limit leaves no marks", "SaveLimited/ends_the_oldest_sessions_to_make_room,_and_says_which"},
	{"limit forgets the save IDs of the evicted", "SaveLimited/ends_them_as_Delete_does"},
	{"limit ignores Until", "SaveLimited/keeps_the_tombstones_until_the_given_time"},
	{"limit never refuses", "SaveLimited/with_Refuse_saves_nothing_over_the_limit,_and_ends_nothing"},
	{"limit saves what it refuses", "SaveLimited/with_Refuse_saves_nothing_over_the_limit,_and_ends_nothing"},
	{"limit counts marks", "SaveLimited/does_not_count_what_has_ended_or_expired,_nor_anybody_else's"},
	{"limit counts expired sessions", "SaveLimited/does_not_count_what_has_ended_or_expired,_nor_anybody_else's"},
	{"limit forgets late sessions", "SaveLimited/counts_what_may_be_live_by_another_clock,_and_ends_it_first"},
	{"limit ends late sessions last", "SaveLimited/counts_what_may_be_live_by_another_clock,_and_ends_it_first"},
	{"copied row keeps its ID", "Copied/a_copied_row_does_not_answer_as_the_record_that_it_was_copied_from"},
	{"copied row keeps its ID", "Copied/nor_does_a_copied_tombstone"},
	{"copied row is shared", "Copied/an_end_of_it_ends_it_alone"},
	{"copied row keeps its ID", "Copied/the_index_by_user_lists_the_other_record_once,_and_nobody_else's"},
	{"limit counts everybody's", "SaveLimited/does_not_count_what_has_ended_or_expired,_nor_anybody_else's"},
	{"limit counts by the first user", "SaveLimited/uses_the_last_stored_values"},
	{"limit counts by the first deadline", "SaveLimited/uses_the_last_stored_values"},
	{"limit counts the one that is replaced", "SaveLimited/leaves_alone_the_session_that_the_new_one_replaces"},
	{"resend evicts again", "SaveLimited/sent_twice_is_saved_once,_and_evicts_once"},
	{"resend after the end evicts", "SaveLimited/sent_again_after_it_has_ended_changes_nothing"},
	{"limit counts copies of itself", "SaveLimited/copies_sent_at_once_are_saved_once,_and_evict_once"},
	{"limit evicts before it refuses the ID", "SaveLimited/refuses_an_ID_that_is_taken_or_has_ended,_and_ends_nothing_then"},
	{"limit not atomic", "SaveLimited/parallel_logins_leave_exactly_as_many_as_allowed"},
	{"limit leaves one too few", "SaveLimited/parallel_logins_leave_exactly_as_many_as_allowed"},
	{"limit not atomic", "SaveLimited/parallel_logins_with_Refuse_let_exactly_as_many_in_as_allowed"},
	{"feed forgets marks", "Ends/tells_every_way_in_which_a_session_ends"},
	{"feed forgets inserted marks", "Ends/tells_every_way_in_which_a_session_ends"},
	{"feed forgets Delete", "Ends/tells_every_way_in_which_a_session_ends"},
	{"feed forgets unknown IDs", "Ends/tells_every_way_in_which_a_session_ends"},
	{"feed forgets evictions", "Ends/tells_every_way_in_which_a_session_ends"},
	{"feed makes up deadlines", "Ends/tells_until_when_the_mark_is_kept"},
	{"feed forgets later deadlines", "Ends/tells_a_later_deadline"},
	{"feed tells of what is refused", "Ends/does_not_tell_of_live_sessions"},
	{"feed starts one too late", "Ends/a_reader_that_starts_now_gets_the_later_ends"},
	{"feed says More for ever", "Ends/a_reader_that_starts_now_gets_the_later_ends"},
	{"feed returns no cursor", "Ends/a_reader_that_starts_now_gets_the_later_ends"},
	{"feed starts with what follows", "Ends/a_reader_from_the_start_gets_every_tombstone_that_is_still_kept"},
	{"feed forgets marks", "Ends/a_reader_from_the_start_gets_every_tombstone_that_is_still_kept"},
	{"feed forgets More", "Ends/a_reader_from_the_start_gets_every_tombstone_that_is_still_kept"},
	{"feed is a queue", "Ends/readers_do_not_disturb_each_other"},
	{"feed is a queue", "Ends/a_cursor_can_be_used_again"},
	{"feed loses an end between pages", "Ends/many_ends_come_in_pages"},
	{"feed numbers an end before it shows it", "Ends/misses_no_end_that_happens_while_it_is_read"},
	{"feed takes any cursor", "Ends/refuses_what_is_not_a_cursor"},
	{"scan skips marks", "Scan/returns_every_record_in_pages,_marks_and_expired_ones_too"},
	{"scan by position", "Scan/returns_what_stays,_while_others_come,_go_and_change"},
	{"scan ignores the limit", "Scan/returns_every_record_in_pages,_marks_and_expired_ones_too"},
	{"count takes marks for live", "Count/counts_each_record_once,_by_kind"},
	{"count takes expired for live", "Count/counts_each_record_once,_by_kind"},
	{"floor ignored", "LoadFrom/answers_no_older_than_the_floor"},
}

// faultVariable has the fault for a copy of this test program.
const faultVariable = "STORETEST_FAULT"

func TestSuiteNotices(t *testing.T) {
	if os.Getenv(faultVariable) != "" {
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Run(f.name+" by "+f.noticedBy, func(t *testing.T) {
			group, scenario, _ := strings.Cut(f.noticedBy, "/")
			run := "^TestFaultyStore$/^" + group + "$/^" + regexp.QuoteMeta(scenario) + "$"
			child := exec.Command(program, "-test.short", "-test.run", run)
			child.Env = append(os.Environ(), faultVariable+"="+f.name)
			out, err := child.CombinedOutput()
			if err == nil {
				t.Fatalf("the suite passed a store with this fault:\n%s", out)
			}
			if !strings.Contains(string(out), "--- FAIL: TestFaultyStore/"+f.noticedBy) {
				t.Fatalf("the test that must notice it did not fail, or the program did otherwise:\n%s", out)
			}
		})
	}
}

// TestFaultyStore runs the suite on a store with a fault, in the program that
// TestSuiteNotices starts.
func TestFaultyStore(t *testing.T) {
	fault := os.Getenv(faultVariable)
	if fault == "" {
		return
	}
	storetest.Run(t, func(t *testing.T) store.Store {
		s := newSimple(fault)
		if fault == "floor ignored" {
			return floorless{s}
		}
		return s
	}, copies)
}
