package webapp2

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// userKey is the entry in which webapp2_extras.auth keeps the logged-in user.
const userKey = "_user"

// User is the logged-in user of webapp2_extras.auth.
type User struct {
	ID         string    // the result of get_id(), as text
	Remember   bool      // the user chose a persistent cookie
	Token      string    // the login's token. A credential
	TokenTime  time.Time // when the token was made
	CacheTime  time.Time // when the token was last looked up
	Attributes []any     // the configured user_attributes
}

// Auth is the configuration of webapp2_extras.auth. A session has its user and
// a token. For a while after the last lookup of the token, webapp2 trusts the
// session alone; then it looks the token up in the datastore again.
type Auth struct {
	// Tokens is the datastore of the UserToken entities. Without it, visitors
	// whose token was last looked up more than TokenCacheAge ago are not logged
	// in.
	Tokens        appengine.Datastore
	TokenMaxAge   time.Duration // token_max_age; 0 = 21 days
	TokenNewAge   time.Duration // token_new_age; 0 = 1 day
	TokenCacheAge time.Duration // token_cache_age; 0 = 1 hour
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// parseUser reads [user_id, remember, token, token_ts, cache_ts, …].
func parseUser(d *value.Dict) *User {
	list, _ := d.Get(userKey).([]any)
	if tuple, ok := d.Get(userKey).(value.Tuple); ok {
		list = tuple
	}
	if len(list) < 5 {
		return nil
	}
	u := &User{Attributes: list[5:]}
	switch id := list[0].(type) {
	case string:
		u.ID = id
	case int64, *big.Int:
		u.ID = fmt.Sprint(id)
	}
	u.Remember = truthy(list[1])
	token, ok := list[2].(string)
	tokenTime, ok1 := timestamp(list[3])
	cacheTime, ok2 := timestamp(list[4])
	if u.ID == "" || !ok || token == "" || !ok1 || !ok2 {
		return nil
	}
	u.Token, u.TokenTime, u.CacheTime = token, tokenTime, cacheTime
	return u
}

func timestamp(v any) (time.Time, bool) {
	switch v := v.(type) {
	case int64:
		return time.Unix(v, 0).UTC(), true
	case float64:
		if v > -1e12 && v < 1e12 {
			return time.Unix(int64(v), 0).UTC(), true
		}
	}
	return time.Time{}, false
}

// loggedIn applies webapp2's rules for a user.
func (a Auth) loggedIn(ctx context.Context, u *User, now time.Time) (bool, error) {
	maxAge := orDefault(a.TokenMaxAge, 21*24*time.Hour)
	newAge := orDefault(a.TokenNewAge, 24*time.Hour)
	cacheAge := orDefault(a.TokenCacheAge, time.Hour)
	now = now.Truncate(time.Second)
	age := now.Sub(u.TokenTime)
	if now.Sub(u.CacheTime) < cacheAge && age < maxAge && age < newAge {
		return true, nil
	}
	if age > maxAge || a.Tokens == nil {
		return false, nil
	}
	entity, err := a.Tokens.Get(ctx, "UserToken", u.ID+".auth."+u.Token)
	if errors.Is(err, legacy.ErrNoEntry) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("datastore: %w", err)
	}
	if created, ok := entity.Get("created").(time.Time); ok {
		return now.Sub(created) <= maxAge, nil
	}
	return true, nil
}
